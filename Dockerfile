# imgproxy with imgproxy-cache in front of it:
#
#   docker build -t imgproxy-cache .
#   docker run -p 8080:8080 -v spool:/var/spool/imgproxy-cache -e S3_BUCKET=... -e AWS_ACCESS_KEY_ID=... -e AWS_SECRET_ACCESS_KEY=... imgproxy-cache
#
# Needs imgproxy 4.0.12 or newer: earlier 4.0 answered errors, and sources cut short, as good images.

ARG IMGPROXY=ghcr.io/imgproxy/imgproxy:v4.0.12

# The environment is made by the Python that will run it, that of the base's own distribution.
FROM ${IMGPROXY} AS environment
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv
WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /tools \
 && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && python3 -m venv --without-pip /opt/imgproxy-cache \
 && /tools/bin/pip --python /opt/imgproxy-cache/bin/python install --no-cache-dir --require-hashes -r requirements/proxy.txt
COPY pyproject.toml README.md LICENSE ./
COPY imgproxy_cache imgproxy_cache
RUN PATH=/tools/bin:$PATH pip wheel --no-deps --no-build-isolation --wheel-dir /tmp . \
 && /tools/bin/pip --python /opt/imgproxy-cache/bin/python install --no-deps --no-index /tmp/*.whl

FROM ${IMGPROXY}
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/*
COPY --from=environment /opt/imgproxy-cache /opt/imgproxy-cache
# The base's entrypoint.sh sets LD_PRELOAD to what IMGPROXY_MALLOC names, and then becomes what it
# is given. Before imgproxy alone, so that the allocator is imgproxy's and not Python's.
RUN printf '#!/bin/sh\nexec entrypoint.sh imgproxy "$@"\n' >/opt/imgproxy-cache/bin/imgproxy-by-entrypoint \
 && chmod 755 /opt/imgproxy-cache/bin/imgproxy-by-entrypoint
# Images wait here that the bucket has not taken yet: mount a volume, and they survive the container.
RUN install -d -m 700 -o 999 /var/spool/imgproxy-cache
ENV PATH=/opt/imgproxy-cache/bin:$PATH \
    CACHE_IMGPROXY_BIN=/opt/imgproxy-cache/bin/imgproxy-by-entrypoint \
    CACHE_SPOOL_DIR=/var/spool/imgproxy-cache
USER 999
VOLUME /var/spool/imgproxy-cache
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=6s --start-period=40s CMD ["imgproxy-cache", "check", "--health"]
ENTRYPOINT ["imgproxy-cache"]
CMD ["run"]
