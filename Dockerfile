# docker build --tag graphprune .                       (CPU)
# docker build --tag graphprune:cuda --target cuda .    (NVIDIA; docker run --gpus all)
# docker run --rm --volume "$PWD:/work" graphprune prune model.onnx small.onnx --target macs=50%

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 AS cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
RUN python3 -m venv /opt/graphprune \
    && /opt/graphprune/bin/pip install --no-cache-dir /wheels/*.whl \
    # Both packages are the module `onnxruntime`; the one for NVIDIA has the CPU too.
    && /opt/graphprune/bin/pip uninstall --yes onnxruntime \
    && /opt/graphprune/bin/pip install --no-cache-dir 'onnxruntime-gpu>=1.20' \
    && useradd --create-home graphprune
USER graphprune
WORKDIR /work
ENV PATH=/opt/graphprune/bin:$PATH
ENTRYPOINT ["graphprune"]

FROM python:3.12-slim AS cpu
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && useradd --create-home graphprune
USER graphprune
WORKDIR /work
ENTRYPOINT ["graphprune"]
