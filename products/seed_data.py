"""Writes the products' seeds: realistic, with the dirt that real data has, the same on every machine.

Run `python products/seed_data.py` after a change; a test compares the files with what this gives.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

SEED = 20_240_601
START = datetime(2024, 1, 1)
Row = Sequence[object]

FIRST = [
    "Ada",
    "Björn",
    "Chen",
    "Dalia",
    "Emre",
    "Fatou",
    "Goran",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
    "Mateo",
    "Nadia",
    "Olu",
    "Petra",
    "Quinn",
    "Rosa",
]
LAST = [
    "Abebe",
    "Bauer",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "García",
    "Haas",
    "Ito",
    "Jansen",
    "Kaya",
    "López",
    "Meyer",
    "Novak",
    "Okoye",
    "Rossi",
]


def seeds() -> dict[str, str]:
    """Return the content of every seed by its path below `products/`."""
    return {
        path: _csv(header, rows)
        for path, header, rows in (
            *_customer_360(random.Random(SEED)),
            *_iot_telemetry(random.Random(SEED + 1)),
            *_financial_risk(random.Random(SEED + 2)),
        )
    }


def _csv(header: str, rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header.split())
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()


def _moment(rng: random.Random, days: int = 180) -> datetime:
    return START + timedelta(seconds=rng.randrange(days * 86_400))


def _customer_360(rng: random.Random) -> list[tuple[str, str, list[Row]]]:
    customers: list[Row] = []
    for key in range(1, 401):
        name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
        email: str | None = name.lower().replace(" ", ".") + f"{key}@example.com"
        if rng.random() < 0.1:
            email = f"  {email.upper()} " if email else None
        if rng.random() < 0.03:
            email = None
        updated = _moment(rng)
        segment = rng.choice(["consumer", "consumer", "business", "enterprise", ""])
        country = rng.choice(["de", "DE", "fr", "ES", "us ", "JP"])
        joined = (START - timedelta(days=rng.randrange(1500))).date()
        customers.append((key, name, email, country, segment, joined, updated))
        if rng.random() < 0.06:
            newer = updated + timedelta(days=rng.randrange(1, 20))
            customers.append((key, f" {name}", email, country, segment, joined, newer))
    transactions: list[Row] = []
    for key in range(1, 3001):
        customer = rng.randrange(1, 401) if rng.random() > 0.004 else 9_000 + key
        status = rng.choices(["completed", "COMPLETED ", "cancelled", "refunded"], [80, 8, 8, 4])[0]
        row = (
            key,
            customer,
            round(rng.lognormvariate(4, 1), 2),
            rng.choice(["eur", "EUR"]),
            status,
            _moment(rng),
        )
        transactions.append(row)
        if rng.random() < 0.02:
            transactions.append(row)
    tickets: list[Row] = []
    for key in range(1, 701):
        opened = _moment(rng)
        closed = opened + timedelta(hours=rng.randrange(1, 200)) if rng.random() > 0.15 else None
        answer = rng.randrange(1, 6) if closed and rng.random() < 0.6 else None
        priority = rng.choice(["low", "Normal", "normal", "high", "URGENT"])
        tickets.append((key, rng.randrange(1, 401), priority, opened, closed, answer))
    folder = "customer_360/seeds"
    return [
        (
            f"{folder}/raw_crm_customers.csv",
            "customer_id full_name email country segment signed_up_on updated_at",
            customers,
        ),
        (
            f"{folder}/raw_transactions.csv",
            "transaction_id customer_id amount currency status occurred_at",
            transactions,
        ),
        (
            f"{folder}/raw_support_tickets.csv",
            "ticket_id customer_id priority opened_at closed_at satisfaction",
            tickets,
        ),
    ]


def _iot_telemetry(rng: random.Random) -> list[tuple[str, str, list[Row]]]:
    kinds = {"temperature": (60.0, 4.0), "vibration": (2.5, 0.4), "pressure": (6.0, 0.5)}
    sensors: list[Row] = []
    readings: list[Row] = []
    number = 0
    for key in range(1, 61):
        kind = list(kinds)[key % 3]
        equipment = f"EQ-{(key - 1) // 3 + 1:03d}"
        sensors.append((key, equipment, kind if rng.random() > 0.1 else kind.upper(), f"line {key % 5 + 1} "))
        mean, spread = kinds[kind]
        for hour in range(72):
            number += 1
            at = START + timedelta(hours=hour, minutes=rng.randrange(60))
            value: float | None = round(rng.gauss(mean, spread), 3)
            if rng.random() < 0.004:
                value = -9999.0
            elif rng.random() < 0.01:
                value = round(mean + spread * 6, 3)
            elif rng.random() < 0.005:
                value = None
            arrived = at + timedelta(seconds=rng.randrange(5), hours=rng.choice([0] * 40 + [30]))
            readings.append((number, key, at, arrived, value))
            if rng.random() < 0.005:
                readings.append((number, key, at, arrived, value))
    maintenance: list[Row] = []
    for key in range(1, 201):
        kind = rng.choice(["inspection", "Repair", "calibration"])
        cost = round(rng.uniform(50, 3000), 2) if rng.random() > 0.05 else None
        maintenance.append((key, f"EQ-{rng.randrange(1, 22):03d}", kind, _moment(rng, 90), cost))
    folder = "iot_telemetry/seeds"
    return [
        (f"{folder}/raw_sensors.csv", "sensor_id equipment_id kind location", sensors),
        (f"{folder}/raw_readings.csv", "reading_id sensor_id measured_at arrived_at value", readings),
        (f"{folder}/raw_maintenance.csv", "work_order_id equipment_id kind done_at cost", maintenance),
    ]


def _financial_risk(rng: random.Random) -> list[tuple[str, str, list[Row]]]:
    symbols = [f"{a}{b}X" for a in "ABCDEF" for b in "LMNOP"]
    counterparties: list[Row] = [
        (
            key,
            f"{rng.choice(LAST)} {rng.choice(['Bank', 'Capital', 'Trust'])} ",
            rng.choice(["AAA", "AA", "a", "BBB", "BB", "b", ""]),
            rng.choice(["DE", "fr", "US", "JP"]),
            f"DE{rng.randrange(10**19, 10**20)}",
        )
        for key in range(1, 41)
    ]
    positions: list[Row] = []
    for key in range(1, 1201):
        counterparty = rng.randrange(1, 41) if rng.random() > 0.01 else 99
        quantity = rng.randrange(-500, 2000) or 1
        booked = date(2024, 3, 1) + timedelta(days=rng.randrange(60))
        row = (
            key,
            counterparty,
            rng.choice(symbols),
            quantity,
            rng.choice(["RATES", "equity", "Credit"]),
            booked,
        )
        positions.append(row)
        if rng.random() < 0.01:
            positions.append(row)
    prices: list[Row] = []
    for symbol in symbols:
        price = rng.uniform(20, 300)
        for day in range(60):
            price *= 1 + rng.gauss(0.0002, 0.015)
            quoted: float | None = round(price, 4) if rng.random() > 0.01 else None
            prices.append((symbol, date(2024, 3, 1) + timedelta(days=day), quoted, "eur"))
    folder = "financial_risk/seeds"
    return [
        (f"{folder}/raw_counterparties.csv", "counterparty_id name rating country iban", counterparties),
        (
            f"{folder}/raw_positions.csv",
            "position_id counterparty_id symbol quantity book booked_on",
            positions,
        ),
        (f"{folder}/raw_market_data.csv", "symbol quoted_on price currency", prices),
    ]


def main() -> None:
    """Write every seed beside this file."""
    for path, content in seeds().items():
        target = Path(__file__).parent / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
