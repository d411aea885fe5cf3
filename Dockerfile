FROM python:3.12-slim

WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY generalist_core/ generalist_core/
COPY spaces/ spaces/
COPY search/ search/
RUN pip install --no-cache-dir . && useradd --create-home --uid 1000 searcher

USER 1000
WORKDIR /home/searcher
ENTRYPOINT ["generalist-search"]
