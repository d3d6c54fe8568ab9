# Trains: fer_core on torch, with CUDA or without. Nothing of Prefect or Docker is in it.
#
#   docker build -f docker/trainer.Dockerfile -t fer-trainer:0.1.0 [--build-arg TORCH=cuda] .
#
# TORCH=cuda  torch as the package index has it: its own CUDA libraries, no toolkit needed, about 5 GB.
# TORCH=cpu   torch without CUDA; where the index has no such wheel, TORCH_INDEX names one that does.
# TORCH=auto  cuda where this machine's kernel has NVIDIA's driver, else cpu.
FROM debian:bookworm-slim AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates g++ python3-dev python3-venv >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt
RUN python3 -m venv /opt/fer
WORKDIR /src
COPY pyproject.toml docker/requirements.py ./
RUN python3 requirements.py train >requirements.txt && grep -E '^torch' requirements.txt >torch.txt
ARG TORCH=auto
ARG TORCH_INDEX=
# pip's own settings are put aside for CUDA, since a base image's may name a folder of CPU wheels, which the same pin takes.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$TORCH" = auto ]; then if [ -e /proc/driver/nvidia/version ]; then TORCH=cuda; else TORCH=cpu; fi; fi; \
    case "$TORCH" in \
      cuda) export PIP_CONFIG_FILE=/dev/null PIP_CERT=/etc/ssl/certs/ca-certificates.crt ;; \
      cpu)  [ -z "$TORCH_INDEX" ] || export PIP_EXTRA_INDEX_URL="$TORCH_INDEX" ;; \
      *)    echo "TORCH=$TORCH: must be auto, cpu or cuda"; exit 1 ;; \
    esac; \
    echo "torch for $TORCH" && /opt/fer/bin/pip install --disable-pip-version-check -q -r torch.txt
# annoy is compiled with -march=native unless told otherwise, and would die on an older processor than this one. On ARM,
# where compilers know no x86, it is compiled for all.
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$(uname -m)" = x86_64 ]; then march=,-march=x86-64-v3; fi; \
    ANNOY_COMPILER_ARGS="-O3,-ffast-math,-fno-associative-math,-std=c++14,-DANNOYLIB_MULTITHREADED_BUILD,-fpermissive$march" \
    /opt/fer/bin/pip install --disable-pip-version-check -q --no-cache-dir --no-binary annoy "$(grep '^annoy' requirements.txt)"
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/fer/bin/pip install --disable-pip-version-check -q -r requirements.txt \
 && /opt/fer/bin/pip uninstall -q -y setuptools pip \
 && find /opt/fer -type d \( -name tests -o -name test \) -path '*site-packages*' -prune -exec rm -rf {} + \
 && rm -rf /opt/fer/lib/python3*/site-packages/pyarrow/include /opt/fer/lib/python3*/site-packages/torch/include

FROM debian:bookworm-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 libstdc++6 libgomp1 >/dev/null \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt \
 && useradd --uid 10001 --no-create-home fer
COPY --from=build /opt/fer /opt/fer
WORKDIR /opt/src
COPY fer_core fer_core
COPY openface openface
# A clone made with umask 077, or 027, holds what the user of the container could not read.
RUN chmod -R a+rX . && PYTHONPATH=. /opt/fer/bin/python -m compileall -q fer_core openface
# It runs as any user, on a root that cannot be written: what libraries keep for themselves goes to /tmp.
ENV PATH=/opt/fer/bin:$PATH PYTHONPATH=/opt/src PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp USER=fer MPLCONFIGDIR=/tmp/matplotlib
USER fer
ENTRYPOINT ["python", "-m", "fer_core"]
CMD ["device"]
