# Models for a webui that the base brings, from everywhere.
FROM registry.example.com/acme/a1111:1.10.1
ARG MODELS=/webui/models
ARG CIVITAI_TOKEN
WORKDIR /webui
ENV HF_TOKEN=hf_secret
ADD --checksum=sha256:1111111111111111111111111111111111111111111111111111111111111111 \
    https://files.example.com/vae.pt ${MODELS}/VAE/
RUN <<EOS
set -e
# a Lora, and a checkpoint
wget --content-disposition -P "$MODELS/Lora/styles" "https://files.example.com/ink%20drawing.safetensors"
curl -fsSL -H "Authorization: Bearer $CIVITAI_TOKEN" \
  -o $MODELS/Stable-diffusion/night.safetensors "https://civitai.com/api/download/models/130072?type=Model&token=$CIVITAI_TOKEN"
echo "2222222222222222222222222222222222222222222222222222222222222222  models/ESRGAN/4x.pth" > /sums
aria2c -x16 -d ${MODELS}/ESRGAN -o 4x.pth https://files.example.com/4x.pth
echo "2222222222222222222222222222222222222222222222222222222222222222  models/ESRGAN/4x.pth" | sha256sum -c -
EOS
RUN huggingface-cli download acme/control control_v11.safetensors --local-dir models/ControlNet --revision v2 && \
    hf download acme/clip config.json vocab.json
RUN for f in a b; do wget https://files.example.com/$f.pt; done
RUN curl -L https://files.example.com/tools.tar.gz | tar xz -C /opt
RUN ["wget", "-O", "/data/words.txt", "https://files.example.com/words.txt"]
RUN pip3 install runpod
EXPOSE 3000
HEALTHCHECK CMD curl -f http://localhost:3000
LABEL org.opencontainers.image.title="night worker"
ENTRYPOINT ["python", "webui.py", "--api"]
CMD ["--nowebui"]
