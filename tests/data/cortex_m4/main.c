/* Runs the recorded steps on QEMU's mps2-an386 and reports by semihosting:

       failed instructions_mean instructions_most stack

   `failed` is the number of the first step that comes out otherwise, 0 where none does. QEMU runs with -icount shift=0:
   an instruction takes a nanosecond of its virtual time, and SysTick counts 25 MHz, so that a tick is 40 instructions.
   The stack is painted before each step, and what a step wrote over is what it used. */
#include "policy_vectors.h"

#include <stddef.h>
#include <string.h>

#define PER_TICK 40u
#define PAINTED 4096u
#define PAINT 0xa5u

extern unsigned char stack_top[];
void reset(void);

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, reset, reset,
};

static volatile uint32_t *const systick_control = (volatile uint32_t *)0xe000e010;
static volatile uint32_t *const systick_reload = (volatile uint32_t *)0xe000e014;
static volatile uint32_t *const systick_now = (volatile uint32_t *)0xe000e018;

static int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void say(uint32_t number)
{
    char text[12];
    size_t at = sizeof text - 1;
    text[at] = '\0';
    text[--at] = ' ';
    do {
        text[--at] = (char)('0' + number % 10u);
        number /= 10u;
    } while (number != 0u);
    semihost(4, text + at);
}

static unsigned char *paint(void)
{
    unsigned char *const here = (unsigned char *)__builtin_frame_address(0) - 64;
    for (size_t i = 1; i <= PAINTED; i++) {
        ((volatile unsigned char *)here)[-(ptrdiff_t)i] = PAINT;
    }
    return here;
}

static uint32_t used(const unsigned char *here)
{
    uint32_t depth = PAINTED;
    while (depth > 0 && ((const volatile unsigned char *)here)[-(ptrdiff_t)depth] == PAINT) {
        depth--;
    }
    return depth;
}

static policy_state_t state;
static float obs[POLICY_OBS_DIM], act[POLICY_ACT_DIM], wanted[POLICY_ACT_DIM];

__attribute__((noinline)) static int step(void)
{
    return policy_step(&state, obs, act);
}

__attribute__((noinline)) static void run(void)
{
    uint32_t failed = 0, most = 0, deepest = 0;
    uint64_t total = 0;
    *systick_reload = 0xffffffu;
    *systick_control = 5u; /* on, by the processor's clock, no interrupt */
    policy_init(&state);
    for (uint32_t k = 0; k < POLICY_VECTORS; k++) {
        if (k == POLICY_VECTORS_RESET) {
            policy_reset(&state);
        }
        memcpy(obs, policy_vectors_in[k], sizeof obs);
        memcpy(wanted, policy_vectors_out[k], sizeof wanted);
        const unsigned char *const here = paint();
        *systick_now = 0u;
        const uint32_t before = *systick_now;
        const int code = step();
        const uint32_t ticks = (before - *systick_now) & 0xffffffu;
        const uint32_t depth = used(here);
        total += ticks;
        most = ticks > most ? ticks : most;
        deepest = depth > deepest ? depth : deepest;
        if (failed == 0u && (code != policy_vectors_code[k] || memcmp(act, wanted, sizeof act) != 0)) {
            failed = k + 1u;
        }
    }
    say(failed);
    say((uint32_t)(total * PER_TICK / POLICY_VECTORS));
    say(most * PER_TICK);
    say(deepest + 64u);
    const uint32_t done[2] = {0x20026u, 0u};
    semihost(0x18, (const void *)(uintptr_t)done[0]);
}

void reset(void)
{
    run();
    for (;;) {
    }
}
