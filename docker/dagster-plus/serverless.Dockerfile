# The three products for Dagster+ Serverless, in one build: `dagster-cloud ci build` takes neither arguments nor a base of
# one's own registry. The context is the repository's root, after `make compile-demo`.
FROM python:3.12-slim

RUN --mount=type=bind,source=requirements-plus.txt,target=/build/requirements.txt \
    python -m pip install --no-cache-dir --disable-pip-version-check --no-input --root-user-action=ignore \
        --require-hashes --only-binary :all: --requirement /build/requirements.txt
RUN --mount=type=bind,source=pyproject.toml,target=/build/project/pyproject.toml \
    --mount=type=bind,source=README.md,target=/build/project/README.md \
    --mount=type=bind,source=LICENSE,target=/build/project/LICENSE \
    --mount=type=bind,source=floe_dagster,target=/build/project/floe_dagster \
    --mount=type=bind,source=docker/dagster-demo/requirements-build.txt,target=/build/requirements-build.txt \
    python -m pip install --no-cache-dir --disable-pip-version-check --no-input --root-user-action=ignore \
        --require-hashes --only-binary :all: --target /tmp/backend --requirement /build/requirements-build.txt \
    && PYTHONPATH=/tmp/backend python -m pip install --no-cache-dir --disable-pip-version-check --no-input \
        --root-user-action=ignore --no-deps --no-index --no-build-isolation /build/project \
    && rm -rf /tmp/backend && python -m pip check

ENV FLOE_HOME=/tmp/floe \
    FLOE_MANIFEST=/app/manifests/demo.yaml \
    PYTHONUNBUFFERED=1 \
    DBT_SEND_ANONYMOUS_USAGE_STATS=false \
    DO_NOT_TRACK=1
COPY manifests/ /app/manifests/
COPY products/ /app/demo/
WORKDIR /app/demo
