# Generates and builds the clients of other languages; a part of tests/run.

# Of the years of Debian 12's Go, as the modules that are built with them.
readonly PROTOC_GEN_GO_VERSION=v1.33.0 PROTOC_GEN_GO_GRPC_VERSION=v1.3.0
readonly PROTOS=(users.proto keys.proto namespaces.proto errors.proto)

# Builds what is not built yet, or from other sources: NAME SOURCE...
build_once() {
    local name=$1 stamp
    shift
    stamp=$(find proto tests/clients/build.sh "$@" -type f -exec cksum {} + | sort | cksum)
    [ "$(cat "target/clients/$name.stamp" 2>/dev/null)" != "$stamp" ] || return 0
    say "building a client: $name"
    rm -rf "target/clients/$name" "target/clients/$name.stamp"
    mkdir -p "target/clients/$name"
    "build_$name" && printf '%s' "$stamp" >"target/clients/$name.stamp"
}

# The protoc that comes with Python's plugin, with plugins of other languages.
protoc() { target/clients/venv/bin/python -m grpc_tools.protoc -Iproto "$@"; }

# Compiles protos to Go: FOLDER OPTIONS... FILE...
protoc_go() {
    local out=$1 bin=$PWD/target/clients/bin
    shift
    protoc --plugin="protoc-gen-go=$bin/protoc-gen-go-$PROTOC_GEN_GO_VERSION" --go_out="$out" \
        --plugin="protoc-gen-go-grpc=$bin/protoc-gen-go-grpc-$PROTOC_GEN_GO_GRPC_VERSION" --go-grpc_out="$out" "$@"
}

build_go() {
    local out=target/clients/go
    cp tests/clients/go/* $out
    protoc_go $out --go_opt=module=usersd --go-grpc_opt=module=usersd "${PROTOS[@]}" || return 1
    (cd $out && CGO_ENABLED=0 go build -o client .)
}

# The service of deploy/examples, which is a module of its own.
build_go-example() {
    local out=target/clients/go-example
    cp deploy/examples/go/* $out
    protoc_go $out --go_opt=module=shop --go-grpc_opt=module=shop -Ideploy/examples whoami.proto || return 1
    mkdir -p $out/users
    protoc_go $out/users {--go_opt=,--go-grpc_opt=}{paths=source_relative,Musers.proto=shop/users} users.proto || return 1
    (cd $out && CGO_ENABLED=0 go build -o service .)
}

# With the gateway's own plugin, of the release that the module asks for.
build_gateway() {
    local out=target/clients/gateway plugin=target/clients/bin/protoc-gen-grpc-gateway-$GATEWAY_VERSION
    cp tests/clients/gateway/* $out
    protoc_go $out --go_opt=module=usersd --go-grpc_opt=module=usersd --plugin="protoc-gen-grpc-gateway=$PWD/$plugin" \
        --grpc-gateway_out=$out --grpc-gateway_opt=module=usersd "${PROTOS[@]}" || return 1
    (cd $out && CGO_ENABLED=0 go build -o gateway .)
}

# Verifies assertions.
build_go-assertion() {
    cp deploy/examples/go-assertion/* target/clients/go-assertion
    (cd target/clients/go-assertion && CGO_ENABLED=0 go build -o verifier .)
}

build_java() { mvn --quiet --batch-mode --file tests/clients/java/pom.xml compile; }

build_js() {
    local out=target/clients/js rpc=(google/rpc/status.proto google/rpc/error_details.proto)
    local bin=$out/node_modules/.bin google
    google=$(echo target/clients/venv/lib/python*/site-packages)
    cp tests/clients/node/* tests/clients/node/.npmrc deploy/examples/node/* $out
    (cd $out && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || return 1
    protoc -I"$google" --plugin="$bin/protoc-gen-ts_proto" --ts_proto_out=$out \
        --ts_proto_opt=outputServices=grpc-js,esModuleInterop=true,importSuffix=.js users.proto "${rpc[@]}" || return 1
    $bin/esbuild $out/walk.ts --bundle --platform=node --format=esm --packages=external --outfile=$out/walk.js \
        --log-level=warning || return 1
    mkdir -p $out/web
    protoc -I"$google" --plugin="$bin/protoc-gen-es" --es_out=$out/web --es_opt=target=ts \
        users.proto google/api/{annotations,field_behavior,http}.proto "${rpc[@]}" || return 1
    $bin/esbuild $out/web.ts --bundle --minify --outfile=$out/web.js --log-level=warning
}

# One that cannot be built fails its own tests and no others.
build_clients() {
    local missing=()
    has go || missing+=(golang-go ca-certificates)
    has javac || missing+=(default-jdk-headless)
    has mvn || missing+=(maven)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
    install_go_tool buf github.com/bufbuild/buf/cmd/buf "$BUF_VERSION" || return 1
    install_go_tool protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go $PROTOC_GEN_GO_VERSION || return 1
    install_go_tool protoc-gen-go-grpc google.golang.org/grpc/cmd/protoc-gen-go-grpc $PROTOC_GEN_GO_GRPC_VERSION || return 1
    local failed=0
    build_once go tests/clients/go || failed=1
    build_once go-example deploy/examples/go deploy/examples/whoami.proto || failed=1
    with_new_go install_go_tool protoc-gen-grpc-gateway "$GATEWAY_MODULE/protoc-gen-grpc-gateway" "$GATEWAY_VERSION" &&
        with_new_go build_once gateway tests/clients/gateway || failed=1
    with_new_go install_go_tool connectconformance connectrpc.com/conformance/cmd/connectconformance "$CONFORMANCE_VERSION" ||
        failed=1
    build_once go-assertion deploy/examples/go-assertion || failed=1
    build_once java tests/clients/java || failed=1
    build_once js tests/clients/node deploy/examples/node || failed=1
    return $failed
}
