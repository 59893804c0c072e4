#!/usr/bin/env bash
# A Python with onnxruntime for 64-bit Arm that qemu-user runs: bash aarch64.sh FOLDER; then FOLDER/python.
# Needs qemu-user, dpkg, apt-get with Debian 12's lists, pip and unzip.  The system is not changed.
set -euo pipefail

mkdir -p "$1"
cd "$1"
folder=$PWD
command -v qemu-aarch64 >/dev/null || { echo "needs qemu-aarch64 (package qemu-user)" >&2; exit 1; }

# Newer ones than 1.20 end in a segmentation fault under qemu 7.2.
platforms=()
for number in 17 27 28; do platforms+=(--platform "manylinux_2_${number}_aarch64"); done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    "${platforms[@]}" --platform manylinux2014_aarch64 --dest wheels \
    onnxruntime==1.20.1 numpy flatbuffers protobuf packaging sympy mpmath coloredlogs humanfriendly
mkdir -p site
for wheel in wheels/*.whl; do unzip -q -o "$wheel" -d site; done

options=(-oAPT::Architecture=arm64 -oAPT::Architectures=arm64 "-oDir::State::Lists=$folder/lists")
mkdir -p lists/partial packages root
apt-get "${options[@]}" update >/dev/null
(
    cd packages
    apt-get "${options[@]}" download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3.11 \
        libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 \
        libcrypt1 libncursesw6 libtinfo6 libreadline8
)
for package in packages/*.deb; do dpkg -x "$package" root; done

cat >python <<END
#!/bin/sh
GRAPHPRUNE_PYTHON=\$0 PYTHONPATH=$folder/site exec qemu-aarch64 -cpu max -L $folder/root \\
    $folder/root/usr/bin/python3.11 "\$@"
END
chmod +x python
./python -c "import platform, onnxruntime; print(platform.machine(), onnxruntime.__version__)"
