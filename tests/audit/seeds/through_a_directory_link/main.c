#if __has_include(<seedver.h>)
#include <seedver.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
