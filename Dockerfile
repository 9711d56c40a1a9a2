# checkov:skip=CKV_DOCKER_2:Kubernetes has probes of its own, which the manifests set
# checkov:skip=CKV_DOCKER_7:the bases are pinned by digest, but named by an argument
# For other base images: --build-arg BUILD_IMAGE=… --build-arg RUN_IMAGE=…
ARG BUILD_IMAGE=pinned-build
ARG RUN_IMAGE=pinned-run
# Stages, as Dependabot updates what FROM names, not defaults of arguments. Unused ones are not pulled.
FROM docker.io/library/python:3.13-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8 AS pinned-build
FROM gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f AS pinned-run

FROM ${BUILD_IMAGE} AS build
# Optional dependencies, such as tracing.
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY noderestrict noderestrict
# Remove what only installs, builds, tests or documents, and what dependencies leave beside their
# packages, and the generated models, which nothing uses. Bytecode is valid whatever the builder makes of the files' times: the image never changes.
# One layer, which never has what is removed here, so cd instead of WORKDIR.
# hadolint ignore=DL3003
RUN python -m venv --copies /opt/noderestrict \
 && install="/opt/noderestrict/bin/pip install --no-cache-dir --no-compile --no-build-isolation -c requirements.txt" \
 # Isolated builds take what builds from an index, of any version.
 && $install hatchling && $install ".${EXTRAS:+[$EXTRAS]}" \
 && /opt/noderestrict/bin/pip uninstall --yes hatchling packaging pathspec pluggy trove-classifiers pip \
 && cd /opt/noderestrict/lib/python3.*/site-packages/kubernetes_asyncio \
 && /opt/noderestrict/bin/python -P -c "import shutil; from noderestrict.cluster.kubernetes_client import UNUSED; any(map(shutil.rmtree, UNUSED))" \
 && cd /opt/noderestrict \
 && rm -rf include share \
 && find bin -mindepth 1 ! -name 'python*' ! -name noderestrict -delete \
 && find lib/python3.*/site-packages -mindepth 1 -maxdepth 1 \
      ! -type d ! -name '*.py' ! -name '*.so' ! -name '*.pth' -delete \
 && find lib/python3.*/site-packages -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && find lib/python3.*/site-packages \
      \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) -delete \
 && cd /usr/local \
 && rm -rf include share man lib/pkgconfig lib/libpython*.a \
 && find bin -mindepth 1 ! -name python3 ! -name 'python3.[0-9]*' -delete \
 && rm -f bin/*-config bin/*-gdb.py \
 && cd lib/python3.* \
 && rm -rf config-3.* ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo turtle.py venv \
           site-packages/* \
 # What links to libraries under the GPL, for terminals and old databases.
 && rm -f lib-dynload/readline.* lib-dynload/_curses* lib-dynload/_dbm.* lib-dynload/_gdbm.* \
 && find /usr/local /opt/noderestrict -type d -name __pycache__ -prune -exec rm -rf {} + \
 # Files that do not compile are never imported.
 && { python3 -m compileall -q --invalidation-mode unchecked-hash /usr/local/lib/python3.*/ \
        /opt/noderestrict/lib || true; }
# The libraries that Python links to, except the C library, which the run image has. With each comes
# what scanners look for, the record of its Debian package: beside those of the run image, whose
# libraries may be of other versions.
# ldd fails on files that link to nothing, so no pipefail.
# hadolint ignore=DL4006
RUN mkdir -p /linked/usr/lib/noderestrict /linked/var/lib/dpkg/status.d \
 && find /usr/local/bin/python3 /usr/local/lib /opt/noderestrict \
      \( -name '*.so*' -o -name 'python3.[0-9]*' -type f \) -print0 \
  | xargs -0 -r ldd 2>/dev/null | awk '/=> \/(usr\/)?lib\// {print $3}' | sort -u \
  | grep -vE '/(libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so' > /tmp/libraries \
 && while read -r library; do \
      cp -L "$library" /linked/usr/lib/noderestrict \
      # dpkg may know it by its place in /usr.
      && owner=$(dpkg-query --search "*${library#/usr}") && package=${owner%%:*} \
      && dpkg-query --status "$package" > "/linked/var/lib/dpkg/status.d/linked-$package" \
      && cp --parents "/usr/share/doc/$package/copyright" /linked \
      || exit 1; \
    done < /tmp/libraries

FROM ${RUN_IMAGE}
COPY --from=build /linked /
COPY --from=build /usr/local /usr/local
COPY --from=build /opt/noderestrict /opt/noderestrict
ENV LD_LIBRARY_PATH=/usr/local/lib:/usr/lib/noderestrict \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8443 9090
ENTRYPOINT ["/opt/noderestrict/bin/python", "-m", "noderestrict"]
