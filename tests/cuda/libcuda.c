/* A stand-in for the CUDA driver's checkpoint calls: processes and their states are files in the
 * folder CUDA_FAKE. It refuses calls out of order, as the driver does; CUDA_FAKE/<call>.<word> makes
 * a call go wrong: "hang" never returns, "fail" gives 2 (out of memory) and leaves the process
 * failed, "lose" kills the process, "several" refuses those that hold more than one GPU. A file
 * "<pid>" holds its state, "<pid>.gpus" the last GPU of several; "calls" grows by a line a call. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, ILLEGAL_STATE = 401,
       NOT_SUPPORTED = 801 };

static int initialized;

static char *path(const char *name) {
    static char text[4][512];
    static int turn;
    char *found = text[turn++ % 4];
    snprintf(found, 512, "%s/%s", getenv("CUDA_FAKE"), name);
    return found;
}

static char *named(int pid) {
    char name[32];
    snprintf(name, sizeof name, "%d", pid);
    return path(name);
}

static int there(const char *call, const char *word) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", call, word);
    return access(path(name), F_OK) == 0;
}

static int state_of(int pid) {
    int state = -1;
    FILE *file = fopen(named(pid), "r");
    if (file) {
        if (fscanf(file, "%d", &state) != 1) state = -1;
        fclose(file);
    }
    return state;
}

static void set_state(int pid, int state) {
    FILE *file = fopen(named(pid), "w");
    if (file) {
        fprintf(file, "%d", state);
        fclose(file);
    }
}

static int move(const char *call, int pid, int from, int to) {
    FILE *calls = fopen(path("calls"), "a");
    if (calls) {
        fprintf(calls, "%s %d\n", call, pid);
        fclose(calls);
    }
    if (!initialized) return NOT_INITIALIZED;
    if (there(call, "hang")) for (;;) pause();
    if (there(call, "lose")) kill(pid, SIGKILL);
    char held[32];
    snprintf(held, sizeof held, "%d.gpus", pid);
    if (there(call, "several") && access(path(held), F_OK) == 0) return NOT_SUPPORTED;
    if (there(call, "fail")) {
        set_state(pid, FAILED);
        return OUT_OF_MEMORY;
    }
    if (state_of(pid) == -1) set_state(pid, RUNNING);
    if (state_of(pid) != from) return ILLEGAL_STATE;
    if (to == CHECKPOINTED) kill(pid, SIGSTOP); /* it answers nothing from here on */
    if (from == CHECKPOINTED) kill(pid, SIGCONT);
    set_state(pid, to);
    return OK;
}

int cuInit(unsigned flags) {
    if (flags || there("cuInit", "fail")) return INVALID;
    initialized = 1;
    return OK;
}

int cuCtxSetCurrent(void *context) { return context ? OK : INVALID; }

int cuMemAlloc_v2(unsigned long long *pointer, size_t size) { /* tests/nvml shows it */
    char name[512];
    snprintf(name, sizeof name, "%s/0.processes", getenv("FAKE_NVML"));
    FILE *processes = fopen(name, "a");
    if (!processes) return OUT_OF_MEMORY;
    fprintf(processes, "%d %zu\n", getpid(), size >> 20);
    fclose(processes);
    *pointer = 1;
    return OK;
}

int cuMemAllocHost_v2(void **pointer, size_t size) { return (*pointer = malloc(size)) ? OK : OUT_OF_MEMORY; }

int cuMemcpyHtoD_v2(unsigned long long to, void *from, size_t size) {
    memset(from, 1, size); /* takes its time, as a copy does */
    return to ? OK : INVALID;
}

int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t size) {
    return cuMemcpyHtoD_v2(from, to, size);
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return initialized ? OK : NOT_INITIALIZED;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    char held[32];
    snprintf(held, sizeof held, "%d.gpus", getpid());
    FILE *several = device ? fopen(path(held), "w") : NULL;
    if (several) fclose(several);
    *context = &initialized;
    set_state(getpid(), RUNNING);
    return initialized ? OK : NOT_INITIALIZED;
}

int cuGetErrorName(int code, const char **name) {
    *name = code == OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == ILLEGAL_STATE ? "CUDA_ERROR_ILLEGAL_STATE"
            : code == NOT_SUPPORTED ? "CUDA_ERROR_NOT_SUPPORTED"
                                    : "CUDA_ERROR_INVALID_VALUE";
    return OK;
}

int cuCheckpointProcessLock(int pid, unsigned *arguments) {
    if (!arguments || !arguments[0]) return INVALID; /* without a timeout it may wait for ever */
    for (int word = 1; word < 16; word++)
        if (arguments[word]) return INVALID; /* reserved */
    return move("Lock", pid, RUNNING, LOCKED);
}

int cuCheckpointProcessCheckpoint(int pid, void *arguments) {
    return arguments ? INVALID : move("Checkpoint", pid, LOCKED, CHECKPOINTED);
}

int cuCheckpointProcessRestore(int pid, void *arguments) {
    return arguments ? INVALID : move("Restore", pid, CHECKPOINTED, LOCKED);
}

int cuCheckpointProcessUnlock(int pid, void *arguments) {
    return arguments ? INVALID : move("Unlock", pid, LOCKED, RUNNING);
}

int cuCheckpointProcessGetState(int pid, int *state) {
    *state = state_of(pid);
    return *state < 0 ? INVALID : OK;
}
