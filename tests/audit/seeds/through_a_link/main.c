#if __has_include(<seedlink.h>)
#include <seedlink.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
