// tests/campaigns/arm/instructions/plugin.c - a plugin of qemu-user: prints how many instructions of the guest were executed.
//
// qemu passes plugins what they need at run time, so these few declarations of its interface (version 1, "QEMU TCG
// Plugins") replace its header, which Debian does not package. The guest must have one thread.
#include <inttypes.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb*, void (*)(unsigned, void*), int flags, void*);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void*), void*);

EXPORT int qemu_plugin_version = 1;

static uint64_t executed;

static void block_runs(unsigned cpu, void* size) {
  (void)cpu;
  executed += (uintptr_t)size;
}

static void block_is_translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  void* const size = (void*)qemu_plugin_tb_n_insns(block);
  qemu_plugin_register_vcpu_tb_exec_cb(block, block_runs, 0, size);
}

static void guest_ends(qemu_plugin_id_t id, void* unused) {
  (void)id;
  (void)unused;
  fprintf(stderr, "instructions: %" PRIu64 "\n", executed);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int count, char** arguments) {
  (void)info;
  (void)count;
  (void)arguments;
  qemu_plugin_register_vcpu_tb_trans_cb(id, block_is_translated);
  qemu_plugin_register_atexit_cb(id, guest_ends, NULL);
  return 0;
}
