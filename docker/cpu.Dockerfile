# syntax=docker/dockerfile:1
# Cuts out photos, or serves the page, on a CPU. See docker/README.md.
FROM python:3.11-slim
WORKDIR /opt/rmbg
COPY . .
RUN pip install --no-cache-dir '.[app,matting,heic]' \
  && useradd --create-home rmbg \
  && mkdir /data && chown rmbg /data
USER rmbg
WORKDIR /data
EXPOSE 7860
ENTRYPOINT ["rmbg-predict"]
CMD ["--helpshort"]
