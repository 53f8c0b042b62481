#if __has_include(<seedboth.h>)
#include <seedboth.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
