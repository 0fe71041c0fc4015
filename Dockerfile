# The pgstack command for compose.yaml: installer and worker.  No server and no models in
# here, so the extra `embedded` stays out.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY pgstack pgstack
COPY cli cli
COPY sql sql
COPY extensions extensions
RUN python -m venv /opt/pgstack \
 && /opt/pgstack/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin pgstack
COPY --from=build /opt/pgstack /opt/pgstack
ENV PATH=/opt/pgstack/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PGSTACK_HOME=/tmp/pgstack
USER 10001
ENTRYPOINT ["pgstack"]
CMD ["worker"]
