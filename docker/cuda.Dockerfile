# syntax=docker/dockerfile:1
# Cuts out photos, or serves the page, on an NVIDIA GPU. See docker/README.md.
FROM python:3.11-slim
WORKDIR /opt/rmbg
COPY . .
ARG EXTRAS=app,matting,heic
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[$EXTRAS]" "$(grep '^jax\[' requirements-cuda12.txt)" \
  && useradd --create-home --uid 1000 rmbg \
  && mkdir /data && chown 1000 /data
USER 1000
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["rmbg-predict"]
CMD ["--helpshort"]
