# The service of docs/serving.md. TORCH_INDEX chooses between PyTorch's wheels for CPUs and for CUDA.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

# a compiler makes the CPU kernels at the first start; ffmpeg reads what libsndfile does not
RUN apt-get update \
    && apt-get install -y --no-install-recommends ffmpeg gcc libc6-dev libgomp1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
RUN pip install torch==2.11.0 torchaudio==2.11.0 --index-url "$TORCH_INDEX"
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY mamba_speech mamba_speech
COPY modules modules
RUN pip install ".[serve]" && rm -rf /app/mamba_speech /app/modules

RUN useradd --create-home service
USER service
WORKDIR /home/service
VOLUME /models
EXPOSE 8000
ENV MAMBA_SPEECH_HOST=0.0.0.0
HEALTHCHECK --start-period=120s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
# exec form, so that SIGTERM reaches the service
CMD ["mamba-speech", "serve", "--config", "/models/service.yaml"]
