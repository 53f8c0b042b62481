set -e
mkdir -p out
meson setup tree
cp tree/result out/
