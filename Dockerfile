# One image for every part, without root: compose.yaml says which command each runs.
#   docker build --target cpu -t bedside:cpu .
#   docker build --target gpu -t bedside:gpu .    with TensorRT for RTX, for the NVIDIA container runtime
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/bedside
ENV PATH=/opt/bedside/bin:$PATH PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE bedside.py ./
COPY stream stream
COPY models models
COPY ingest ingest
COPY monitor monitor
COPY bench bench
COPY training training
RUN pip install -c constraints.txt .

FROM build AS build-gpu
RUN pip install -c constraints.txt '.[tensorrt-rtx]'

FROM python:3.12-slim AS base
RUN useradd --uid 1000 --create-home bedside
USER 1000
ENV PATH=/opt/bedside/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["bedside"]

FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-gpu /opt/bedside /opt/bedside

# The last one is what a build without --target makes.
FROM base AS cpu
COPY --from=build /opt/bedside /opt/bedside
