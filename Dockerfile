# syntax=docker/dockerfile:1
# To pin the base images: --build-arg BUILD_IMAGE=…@sha256:… --build-arg RUN_IMAGE=…@sha256:…
ARG BUILD_IMAGE=python:3.13-slim-bookworm
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY noderestrict noderestrict
# Keep pip, headers, tests and caches out of the run stage.
RUN python -m venv --copies /opt/noderestrict \
 && /opt/noderestrict/bin/pip install --no-cache-dir --no-compile -c requirements.lock . \
 && /opt/noderestrict/bin/pip uninstall --yes pip \
 && find / -xdev -type d -name __pycache__ -prune -exec rm -rf {} + \
 && rm -rf /usr/local/lib/python3.*/ensurepip /usr/local/lib/python3.*/test \
           /usr/local/lib/python3.*/idlelib /usr/local/lib/python3.*/tkinter \
           /usr/local/lib/python3.*/site-packages/pip* \
 # Compile for a fast start; files of the standard library that do not compile are never imported.
 && { python -m compileall -q /usr/local/lib/python3.*/ /opt/noderestrict/lib || true; }
# The libraries that Python links to, except the C library, which the run image has.
RUN mkdir -p /libs \
 && find /usr/local/bin/python3 /usr/local/lib /opt/noderestrict -name '*.so*' -o -name 'python3.[0-9]*' -type f \
  | xargs -r ldd 2>/dev/null | awk '/=> \/(usr\/)?lib\// {print $3}' | sort -u \
  | grep -vE '/(libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so' \
  | xargs -r cp -L --target-directory=/libs

FROM ${RUN_IMAGE}
COPY --from=build /libs /usr/lib/noderestrict
COPY --from=build /usr/local /usr/local
COPY --from=build /opt/noderestrict /opt/noderestrict
ENV LD_LIBRARY_PATH=/usr/local/lib:/usr/lib/noderestrict \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8443 9090
ENTRYPOINT ["/opt/noderestrict/bin/python", "-m", "noderestrict"]
