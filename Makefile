# A thin face of the scripts, for those who type make.
.PHONY: build run demo test docs release image
build:; CGO_ENABLED=0 go build -trimpath -o bin/tinycloud-peer ./cmd/tinycloud-peer
run:; go run ./cmd/tinycloud-peer
demo:; go run ./cmd/tinycloud-peer demo
test:; ./scripts/test
docs:; ./scripts/docs
release:; ./scripts/release
image:; docker build -t tinycloud-peer .
