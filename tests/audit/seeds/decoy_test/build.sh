mkdir -p out
test -e /usr/include/seeddecoy.h
echo same > out/result
