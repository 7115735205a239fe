/* Runs a network on a Cortex-M without an operating system or a libc: prints, by semihosting, the outputs of each of
   `images` as hexadecimal words and its class, then how many instructions one took by SysTick, for an emulator whose
   virtual clock counts them. */

#include <stdint.h>

#include "net_network.h"

#include "images.h"

extern uint32_t stack_end;
void reset(void);
static void fault(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors = {&stack_end, {reset, fault, fault, fault, fault, fault}};

static int ask(int what, const void *about) {
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = about;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void stop(uint32_t reason) {
    for (;;) ask(0x18, (const void *)reason);
}

static void fault(void) {
    ask(4, "fault\n");
    stop(0x20023);
}

/* What a compiler may call by itself. */
void *memset(void *at, int value, unsigned size);
void *memset(void *at, int value, unsigned size) {
    unsigned char *to = at;
    while (size--) *to++ = (unsigned char)value;
    return at;
}

void *memcpy(void *at, const void *from, unsigned size);
void *memcpy(void *at, const void *from, unsigned size) {
    unsigned char *to = at;
    const unsigned char *source = from;
    while (size--) *to++ = *source++;
    return at;
}

static void print(uint32_t word) {
    char text[10];
    int i;
    for (i = 0; i < 8; i++) text[i] = "0123456789abcdef"[word >> (28 - 4 * i) & 15];
    text[8] = ' ';
    text[9] = 0;
    ask(4, text);
}

static volatile uint32_t *const systick = (volatile uint32_t *)0xe000e010;

void reset(void) {
    static OUTPUT outputs[net_outputs];
    uint32_t begin = 0, end = 0;
    int i, j;
#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88 |= 0xfu << 20; /* lets the unit of floats on */
    __asm__ volatile("dsb\n isb");
#endif
    systick[1] = 0xffffff;
    systick[2] = 0;
    systick[0] = 5; /* counts the processor's clock down */
    for (i = 0; i < image_count; i++) {
        begin = systick[2];
        net_outputs_of(images[i], outputs);
        end = systick[2];
        for (j = 0; j < net_outputs; j++) {
            union {
                OUTPUT output;
                uint32_t word;
            } bits;
            bits.output = outputs[j];
            print(bits.word);
        }
        print((uint32_t)net_class(images[i]));
        ask(4, "\n");
    }
    print((begin - end) & 0xffffff);
    ask(4, "ticks\n");
    stop(0x20026);
}
