set -e
mkdir -p out
aclocal
autoconf
./configure --quiet
cp aclocal.m4 configure out/ || cp configure out/
