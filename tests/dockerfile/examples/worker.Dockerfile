# A serverless worker, as templates make it: sources and the model in one stage, the webui in the next.
ARG A1111_RELEASE=v1.9.3

FROM alpine/git:2.43.0 AS download
COPY builder/clone.sh /clone.sh
RUN apk add --no-cache wget && \
    wget -q -O /model.safetensors https://huggingface.co/acme/night/resolve/main/night.safetensors

FROM python:3.10.14-slim AS build_final_image
ARG A1111_RELEASE
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_PREFER_BINARY=1 \
    ROOT=/stable-diffusion-webui \
    PYTHONUNBUFFERED=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN apt-get update && \
    apt install -y fonts-dejavu-core rsync git jq libgl1 && \
    rm -rf /var/lib/apt/lists/*

RUN --mount=type=cache,target=/root/.cache/pip \
    git clone https://github.com/AUTOMATIC1111/stable-diffusion-webui.git && \
    cd stable-diffusion-webui && \
    # the release that was tested
    git reset --hard ${A1111_RELEASE} && \
    pip install xformers && \
    pip install -r requirements_versions.txt && \
    python -c "from launch import prepare_environment; prepare_environment()" --skip-torch-cuda-test

COPY --from=download /model.safetensors /model.safetensors

COPY builder/cache.py /stable-diffusion-webui/cache.py
RUN cd /stable-diffusion-webui && python cache.py --use-cpu=all --ckpt /model.safetensors

COPY requirements.txt .
RUN pip install --upgrade -r requirements.txt --no-cache-dir
ADD src .
RUN chmod +x /start.sh
CMD /start.sh
