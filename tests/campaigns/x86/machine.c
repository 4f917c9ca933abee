// The least system that one statically linked program of one thread needs: memory, a console, an end.
//
// The program comes as Multiboot's first module. What it writes goes to the first serial port, and behind it
// "exit code N".
#include <stddef.h>
#include <stdint.h>

enum {
  kSerial = 0x3f8,
  kPage = 4096,
  kThisKernel = 0x8000000,  // link.ld: the heap ends below it
  kMemoryEnd = 0x3e000000,  // of a machine of 1 GiB, whose firmware keeps the last MiB
  kNotThere = 2,            // errno: ENOENT
  kNoMemory = 12,           // ENOMEM
  kInvalid = 22,            // EINVAL
  kNotATerminal = 25,       // ENOTTY
  kNotImplemented = 38,     // ENOSYS
};

static uintptr_t heap_end, mapped_from;  // memory is mapped downwards

static void write_port(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t read_port(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static void write_register(uint32_t number, uint64_t value) {  // a model specific one
  __asm__ volatile("wrmsr" ::"c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

void* memcpy(void* target, const void* source, size_t count) {
  void* start = target;
  __asm__ volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(count)::"memory");
  return start;
}

void* memset(void* target, int value, size_t count) {
  void* start = target;
  __asm__ volatile("rep stosb" : "+D"(target), "+c"(count) : "a"(value) : "memory");
  return start;
}

static void say(const char* text, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    while ((read_port(kSerial + 5) & 0x20) == 0) {
    }
    write_port(kSerial, (uint8_t)text[i]);
  }
}

static void say_number(const char* label, size_t label_count, uint64_t value) {
  char digits[20];
  size_t first = sizeof digits;
  do {
    digits[--first] = (char)('0' + value % 10);
    value /= 10;
  } while (value != 0);
  say(label, label_count);
  say(digits + first, sizeof digits - first);
  say("\n", 1);
}
#define SAY_NUMBER(label, value) say_number(label, sizeof(label) - 1, value)

static void end(uint64_t code) {
  SAY_NUMBER("exit code ", code);
  for (;;) __asm__ volatile("cli; hlt");
}

void on_exception(uint64_t number, const uint64_t* frame) {
  SAY_NUMBER("exception ", number);
  for (int i = 0; i < 2; ++i) SAY_NUMBER("  on the stack: ", frame[i]);  // the instruction, or a code and it
  end(128 + number);
}

static int64_t write_pieces(const uint64_t* pieces, uint64_t count) {  // of an address and a size each
  int64_t written = 0;
  for (uint64_t i = 0; i < count; ++i) {
    say((const char*)pieces[2 * i], pieces[2 * i + 1]);
    written += (int64_t)pieces[2 * i + 1];
  }
  return written;
}

static int64_t set_heap_end(uintptr_t wanted) {
  if (wanted > heap_end && wanted < kThisKernel) {
    memset((void*)heap_end, 0, wanted - heap_end);
    heap_end = wanted;
  }
  return (int64_t)heap_end;
}

static int64_t map_memory(size_t size) {
  size = (size + kPage - 1) / kPage * kPage;
  if (size > mapped_from - 2 * (uintptr_t)kThisKernel) return -kNoMemory;
  mapped_from -= size;
  memset((void*)mapped_from, 0, size);
  return (int64_t)mapped_from;
}

// Numbered as Linux does.
int64_t system_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  switch (number) {
    case 1:  // write
      say((const char*)b, c);
      return (int64_t)c;
    case 20:  // writev
      return write_pieces((const uint64_t*)b, c);
    case 9:  // mmap: of no file
      return (d & 0x20) != 0 ? map_memory(b) : -kNotThere;
    case 12:  // brk
      return set_heap_end(a);
    case 10:   // mprotect
    case 11:   // munmap
    case 28:   // madvise
    case 13:   // rt_sigaction
    case 14:   // rt_sigprocmask
    case 273:  // set_robust_list
      return 0;
    case 39:   // getpid
    case 186:  // gettid
    case 218:  // set_tid_address
      return 1;
    case 16:  // ioctl
      return -kNotATerminal;
    case 5:  // fstat: a device that takes characters
      memset((void*)b, 0, 144);
      ((uint32_t*)b)[6] = 0x2190;
      return 0;
    case 262:  // newfstatat: the same
      memset((void*)c, 0, 144);
      ((uint32_t*)c)[6] = 0x2190;
      return 0;
    case 89:   // readlink
    case 257:  // openat
    case 267:  // readlinkat
      return -kNotThere;
    case 158:  // arch_prctl
      if (a != 0x1002) return -kInvalid;
      write_register(0xc0000100, b);  // the base of fs
      return 0;
    case 302:  // prlimit64
      if (d != 0) memset((void*)d, 0xff, 16);
      return 0;
    case 318:  // getrandom: the same each time
      memset((void*)a, 7, b);
      return (int64_t)b;
    case 334:  // rseq
      return -kNotImplemented;
    case 60:   // exit
    case 231:  // exit_group
      end(a & 0xff);
    case 234:  // tgkill, by abort()
      end(134);
    default:
      SAY_NUMBER("unknown system call ", number);
      return -kNotImplemented;
  }
}

typedef struct {
  uint16_t low, segment;
  uint8_t stack, kind;
  uint16_t middle;
  uint32_t high, zero;
} Gate;

typedef struct {
  uint32_t kind, flags;
  uint64_t offset, address, physical, file_size, size, alignment;
} Segment;

extern const uint64_t exceptions[20];
void enter_program(uint64_t entry, uint64_t stack);

static void catch_exceptions(void) {
  static Gate gates[20];
  for (int i = 0; i < 20; ++i) {
    const uint64_t at = exceptions[i];
    gates[i] = (Gate){(uint16_t)at, 8, 0, 0x8e, (uint16_t)(at >> 16), (uint32_t)(at >> 32), 0};
  }
  const struct {
    uint16_t limit;
    uint64_t address;
  } __attribute__((packed)) table = {sizeof gates - 1, (uint64_t)gates};
  __asm__ volatile("lidt %0" ::"m"(table));
}

// Multiboot's information: its 6th and 7th words are the number of modules and where they are described.
void run_program(const uint32_t* information) {
  write_port(kSerial + 3, 3);  // 8 bits
  catch_exceptions();
  const uint32_t* module = (const uint32_t*)(uintptr_t)information[6];
  const size_t size = module[1] - module[0];
  const uintptr_t stack = kMemoryEnd - kPage;
  mapped_from = (stack - 0x1000000 - size) / kPage * kPage;  // 16 MiB of stack
  uint8_t* file = (uint8_t*)mapped_from;                     // out of the way of its own segments
  memcpy(file, (const void*)(uintptr_t)module[0], size);

  const uint64_t entry = *(uint64_t*)(file + 24), table = *(uint64_t*)(file + 32);
  const uint16_t count = *(uint16_t*)(file + 56);
  uint64_t table_address = 0;
  for (const Segment* at = (const Segment*)(file + table); at < (const Segment*)(file + table) + count;
       ++at) {
    if (at->kind != 1) continue;
    memcpy((void*)at->address, file + at->offset, at->file_size);
    memset((void*)(at->address + at->file_size), 0, at->size - at->file_size);
    if (at->address + at->size > heap_end) heap_end = at->address + at->size;
    if (at->offset == 0) table_address = at->address + table;
  }
  heap_end = (heap_end + kPage - 1) / kPage * kPage;

  static char name[] = "program";
  static uint8_t random[16];
  uint64_t* top = (uint64_t*)(stack - 512);
  const uint64_t first[] = {1,  (uint64_t)name,
                            0,  // arguments
                            0,  // no environment
                            3,  table_address,
                            4,  sizeof(Segment),
                            5,  count,
                            6,  kPage,
                            9,  entry,
                            11, 0,
                            12, 0,
                            13, 0,
                            14, 0,
                            23, 0,  // no user, no secrets
                            25, (uint64_t)random,
                            0,  0};
  memcpy(top, first, sizeof first);
  enter_program(entry, (uint64_t)top);
}
