set -e
mkdir -p out
aclocal
autoconf
autoheader
./configure --quiet
cp config.h out/
