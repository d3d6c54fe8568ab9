# Prefect's server, the worker, and the one-shot that registers the deployments: one image, so one version. No torch.
#
#   docker build -f docker/prefect.Dockerfile -t fer-prefect:0.1.0 .
FROM debian:bookworm-slim AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends binutils ca-certificates python3-venv >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt
RUN python3 -m venv /opt/fer
WORKDIR /src
COPY pyproject.toml docker/requirements.py ./
# What goes again: the libraries' own tests, Arrow's network filesystems, its libraries' second names, the UI that is off,
# the decoder of HEIC, as no image is opened here, what Amazon has besides S3, debuggers' symbols, and the bytecode of what is never imported.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 requirements.py flow >requirements.txt \
 && /opt/fer/bin/pip install --disable-pip-version-check -q -r requirements.txt \
 && /opt/fer/bin/pip uninstall -q -y setuptools pip \
 && cd /opt/fer/lib/python3*/site-packages \
 && find . -type d \( -name tests -o -name test -o -name testing -path '*sqlalchemy*' \) -prune -exec rm -rf {} + \
 && find . -name '*.c' -o -name '*.pyx' -o -name '*.pxi' -o -name '*.pxd' -o -name '*.pyi' | xargs rm \
 && rm -rf pyarrow/include pyarrow/libarrow_flight* pyarrow/libarrow_python_flight* pyarrow/_flight* \
           pyarrow/libarrow_s3* pyarrow/_s3fs* \
           pyarrow/libarrow*.so pyarrow/libarrow*.so.*.* prefect/server/ui-v2 pi_heif* \
           $(ls -d botocore/data/*/ | grep -vE '/(s3|sts|sso|sso-oidc)/$') \
           pygments/lexers/__pycache__ pygments/styles/__pycache__ apprise/plugins/__pycache__ \
           aiohttp/__pycache__ botocore/__pycache__ aiobotocore/__pycache__ \
 && find asyncpg sqlalchemy yaml regex _ruamel* -name '*.so' -exec strip --strip-unneeded {} +

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 libstdc++6 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt \
 && useradd --uid 10001 --create-home fer
COPY --from=build /opt/fer /opt/fer
WORKDIR /opt/src
COPY --chmod=755 docker/start /usr/local/bin/start
COPY fer_core fer_core
COPY openface openface
COPY flows flows
# A clone made with umask 077, or 027, holds what the user of the container could not read.
RUN chmod -R a+rX . && PYTHONPATH=. /opt/fer/bin/python -m compileall -q fer_core openface flows
ENV PATH=/opt/fer/bin:$PATH PYTHONPATH=/opt/src PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 \
    PREFECT_HOME=/tmp/prefect PREFECT_SERVER_UI_STATIC_DIRECTORY=/tmp/prefect/ui \
    PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 \
    PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false PREFECT_SERVER_UI_V2_ENABLED=false
USER fer
ENTRYPOINT ["start"]
