# The server as an image: docker build -t collab .
#
# Three stages: the page is built by Node, the server is installed into /opt/collab by pip, and the image gets the result of
# both alone: Python, /opt/collab and an empty /data. It runs as a user of its own, writes into /data and nowhere else (run
# it with --read-only), and needs no shell. docs/deployment.md says how to run it; tests/packaging/test_image.py runs what
# this file says in an empty root.

ARG PYTHON_IMAGE=python:3.13-slim-bookworm
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS page
WORKDIR /src/web_demo
COPY web_demo/package.json web_demo/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY web_demo ./
RUN npm run build

FROM ${PYTHON_IMAGE} AS server
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY .ci/wheel_contents.py .ci/
COPY migrations migrations
COPY collab collab
COPY --from=page /src/web_demo/dist web_demo/dist
# No pip in the result. Compiled here, because nobody can write there later.
RUN python -m venv --without-pip /opt/collab \
    && python -m pip --python /opt/collab/bin/python install --constraint constraints.txt '.[redis]' \
    && python -m compileall -q /opt/collab/lib \
    && mkdir /data

FROM ${PYTHON_IMAGE}
COPY --from=server /opt/collab /opt/collab
# By number: Kubernetes cannot tell from a name that it is not root's.
COPY --from=server --chown=10001:10001 /data /data
USER 10001:10001
ENV PATH=/opt/collab/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    COLLAB_HOST=0.0.0.0 \
    COLLAB_PORT=1234 \
    COLLAB_DATA_DIR=/data
WORKDIR /data
VOLUME ["/data"]
EXPOSE 1234
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["collab", "health"]
ENTRYPOINT ["collab"]
CMD ["serve"]
