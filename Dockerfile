# tinycloud-peer as a container: one static program, and the certificates that it trusts.
#
#   docker build -t tinycloud-peer .
#   docker run -d -p 8000:8000 -p 4001:4001 -p 4001:4001/udp -v tinycloud-peer:/data tinycloud-peer
#
# Data are in /data. Settings are variables (TINYCLOUD_…) or a file at /etc/tinycloud-peer/tinycloud.toml.
# hadolint global ignore=DL3007
ARG GO=1.26
FROM --platform=$BUILDPLATFORM golang:${GO} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags='-s -w' -o /out/tinycloud-peer ./cmd/tinycloud-peer \
 && mkdir /out/data /out/settings

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/tinycloud-peer /usr/bin/tinycloud-peer
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/settings /etc/tinycloud-peer
# Where the data are unless a setting says otherwise, and that the port can be published.
ENV STATE_DIRECTORY=/data TINYCLOUD_ADDRESS=0.0.0.0
WORKDIR /etc/tinycloud-peer
VOLUME /data
EXPOSE 8000/tcp 4001/tcp 4001/udp
USER 65532:65532
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/bin/tinycloud-peer", "health"]
ENTRYPOINT ["/usr/bin/tinycloud-peer"]
