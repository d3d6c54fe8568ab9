# The HTTP service: finds faces and says their emotions, on ONNX Runtime. No torch, no pandas, and no model, which is mounted.
#
#   docker build -f docker/service.Dockerfile -t fer-service:0.1.0 .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/artifacts/export:/model:ro" fer-service:0.1.0
FROM debian:bookworm-slim AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates python3-venv >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt
RUN python3 -m venv /opt/fer
WORKDIR /src
COPY pyproject.toml docker/requirements.py ./
# What goes again: pip, the libraries' own tests, ONNX Runtime's tools, OpenCV's other cascades, a second page for the API.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 requirements.py predict serve of numpy pillow pydantic >requirements.txt \
 && /opt/fer/bin/pip install --disable-pip-version-check -q -r requirements.txt \
 && /opt/fer/bin/pip uninstall -q -y setuptools pip \
 && cd /opt/fer/lib/python3*/site-packages \
 && find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && rm -rf onnxruntime/transformers onnxruntime/tools onnxruntime/quantization onnxruntime/datasets \
           fastapi_offline/static/redoc.standalone.js \
 && find cv2/data -name '*.xml' ! -name haarcascade_frontalface_alt2.xml -delete

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 libstdc++6 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt \
 && useradd --uid 10001 --no-create-home fer
COPY --from=build /opt/fer /opt/fer
WORKDIR /opt/src
COPY openface openface
COPY fer_core fer_core
# A clone made with umask 077, or 027, holds what the user of the container could not read.
RUN chmod -R a+rX . && PYTHONPATH=. /opt/fer/bin/python -m compileall -q fer_core openface
# MALLOC_…: a large image's memory goes back when it was answered, 150 MB stay; by itself the C library keeps 1.1 GB of it.
ENV PATH=/opt/fer/bin:$PATH PYTHONPATH=/opt/src PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 HOME=/tmp ORT_DISABLE_TELEMETRY=1 MALLOC_MMAP_THRESHOLD_=131072 \
    FER_MODEL=/model FER_SERVICE_HOST=0.0.0.0 FER_SERVICE_PORT=8000
USER fer
EXPOSE 8000
# Not by way of a proxy, which Docker's own settings put into containers.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['FER_SERVICE_PORT'] + '/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "fer_core.service"]
