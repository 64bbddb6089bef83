# One image for every part; compose.yaml says which command each runs.
FROM python:3.12-slim
WORKDIR /opt/bedside
COPY pyproject.toml constraints.txt README.md LICENSE bedside.py ./
COPY stream stream
COPY models models
COPY ingest ingest
COPY monitor monitor
COPY bench bench
COPY training training
RUN pip install --no-cache-dir -c constraints.txt . && useradd --create-home bedside
USER bedside
ENTRYPOINT ["bedside"]
