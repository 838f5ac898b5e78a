# What the official imgproxy image looks like from where our Dockerfile stands (its user, its
# entrypoint.sh, its imgproxy and where that is, no Python on the way), with the embedded engine as
# imgproxy: for machines that can reach a Debian mirror but no container registry.
FROM localhost/imgproxy-cache-debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates libjemalloc2 python3-venv \
 && ln -s /usr/lib/*/libjemalloc.so.2 /usr/local/lib/libjemalloc.so \
 && rm -rf /var/lib/apt/lists/*
COPY requirements/engine.txt /opt/imgproxy/
RUN python3 -m venv /opt/imgproxy/engine \
 && PKG_CONFIG_LIBDIR=/nonexistent /opt/imgproxy/engine/bin/pip install --no-cache-dir --require-hashes -r /opt/imgproxy/engine.txt
COPY imgproxy_cache /opt/imgproxy/imgproxy_cache
RUN mkdir /opt/imgproxy/bin \
 && printf '#!/bin/sh\nPYTHONPATH=/opt/imgproxy exec /opt/imgproxy/engine/bin/python -m imgproxy_cache.engine\n' >/opt/imgproxy/bin/imgproxy \
 && printf '#!/bin/sh\n[ "$IMGPROXY_MALLOC" != jemalloc ] || export LD_PRELOAD="$LD_PRELOAD:/usr/local/lib/libjemalloc.so"\nexec "$@"\n' >/usr/local/bin/entrypoint.sh \
 && chmod 755 /opt/imgproxy/bin/imgproxy /usr/local/bin/entrypoint.sh \
 && ln -s /opt/imgproxy/bin/imgproxy /usr/local/bin/imgproxy \
 && groupadd -r imgproxy && useradd -r -u 999 -g imgproxy imgproxy
ENV IMGPROXY_MALLOC=malloc
USER 999
ENTRYPOINT ["entrypoint.sh"]
CMD ["imgproxy"]
EXPOSE 8080
