/* Start of a program on a bare Cortex-M: vectors, floating point on, semihosting for printf. */
extern unsigned stack_top;
extern void initialise_monitor_handles(void);
extern void __libc_init_array(void);
extern void exit(int);
extern int main(void);
void _init(void) {}
void _fini(void) {}

static void fault(void) {
  exit(3);
}

void reset(void) {
  *(volatile unsigned*)0xE000ED88 |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
  __asm__ volatile("dsb\n isb");
  initialise_monitor_handles();
  __libc_init_array();
  exit(main());
}

__attribute__((section(".vectors"), used)) static void* const vectors[16] = {
    &stack_top,    (void*)&reset, (void*)&fault, (void*)&fault,
    (void*)&fault, (void*)&fault, (void*)&fault, (void*)&fault,
};
