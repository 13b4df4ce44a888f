"""What Trino copies into a published table by a statement of its own: appended and upserted rows."""

from __future__ import annotations

from tests.trino.shops import Shop, said


def test_an_upsert_adds_columns_leaves_equal_rows_alone_and_needs_a_key(on_trino: Shop) -> None:
    spec, model = on_trino.product / "floe.yaml", on_trino.product / "models" / "growing.sql"
    spec.write_text(spec.read_text().replace("write_mode: append", "write_mode: upsert, key: [id]"))
    model.write_text("select id, amount from {{ ref('orders') }}\n")
    assert on_trino.run().success
    model.write_text(
        "select id, amount * case when id = 6 then 2 else 1 end as amount, 'new' as note from {{ ref('orders') }} "
        "where id > 4\n"
    )
    outcome = on_trino.run()
    assert outcome.success, said(outcome)
    expected = [(n, n * 10, None) for n in range(1, 5)] + [(5, 50, "new"), (6, 120, "new")]
    assert [(row["id"], row["amount"], row["note"]) for row in on_trino.rows("growing")] == expected
    assert on_trino.run().success
    snapshot = on_trino.catalog.load_table(("shop", "growing")).current_snapshot()
    assert snapshot is not None and snapshot.summary is not None
    assert snapshot.summary.additional_properties.get("added-records") in (None, "0")
    for key, why in (("nullif(id, 6)", "is null; upsert needs a value"), ("id / 2", "is not unique")):
        model.write_text(f"select {key} as id, amount, 'new' as note from {{{{ ref('orders') }}}}\n")
        refused = on_trino.run()
        assert not refused.success and why in said(refused), said(refused)
    assert [(row["id"], row["amount"], row["note"]) for row in on_trino.rows("growing")] == expected


def test_rows_that_are_added_may_have_a_new_column(on_trino: Shop) -> None:
    assert on_trino.run().success
    (on_trino.product / "models" / "growing.sql").write_text(
        "select max(id) as id, 'new' as note from {{ ref('orders') }}\n"
    )
    outcome = on_trino.run()
    assert outcome.success, said(outcome)
    assert on_trino.rows("growing") == [{"id": 6, "note": "new"}, {"id": 6, "note": None}]


def test_what_trino_cannot_copy_is_said_once_and_holds_up_nothing_else(on_trino: Shop) -> None:
    assert on_trino.run().success
    (on_trino.product / "models" / "growing.sql").write_text("select 'many' as id from {{ ref('orders') }}\n")
    outcome = on_trino.run(config={"vars": {"factor": 2}})
    assert not outcome.success
    assert "shop.growing: Trino: TYPE_MISMATCH" in said(outcome), said(outcome)
    assert [event for event in outcome.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"] == []
    assert [row["amount"] for row in on_trino.rows("orders")] == [20, 40, 60, 80, 100, 120]


def test_a_seed_that_is_published_can_be_loaded_anew_with_other_types(on_trino: Shop) -> None:
    (on_trino.product / "seeds" / "properties.yml").write_text(
        "seeds: [{name: raw_orders, config: {meta: {floe: {publish: true}}}}]\n"
    )
    assert on_trino.run().success
    assert [row["amount"] for row in on_trino.rows("raw_orders")] == [10, 20, 30, 40, 50, 60]
    seed = on_trino.product / "seeds" / "raw_orders.csv"
    seed.write_text(seed.read_text() + "7,name 7,70\n")
    outcome = on_trino.run(config={"full_refresh": True})
    assert outcome.success, said(outcome)
    assert len(on_trino.rows("raw_orders")) == 7 and on_trino.clones() == []
