# docker build -t hsfusion .                                                                      CPU
# docker build -t hsfusion:cuda --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 .          CUDA
# PIP_OPTIONS: options of pip, such as an index that holds CPU builds of PyTorch, which are much smaller
# docker run --rm -v "$PWD":/data hsfusion train scene=field.yaml
ARG BASE=ubuntu:24.04
FROM ${BASE}
ARG PIP_OPTIONS=
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv libexpat1 \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hsfusion
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md /src/
COPY hsfusion /src/hsfusion
COPY conf /src/conf
RUN /opt/hsfusion/bin/pip install --no-cache-dir ${PIP_OPTIONS} -c /src/constraints.txt /src
WORKDIR /data
ENTRYPOINT ["/opt/hsfusion/bin/hsfusion"]
