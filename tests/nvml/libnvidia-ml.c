/* A stand-in for NVML: GPU number N is the file FAKE_NVML/N, "name uuid total used usage
 * temperature" (MiB, percent, degrees; -1: not supported). FAKE_NVML/N.processes has a line
 * "pid MiB" for each process; those that live, and are not parked by tests/cuda/libcuda.c, hold
 * memory besides, and are listed unless there is a file FAKE_NVML/hide (as in a container). A GPU's
 * handle is its number plus 1. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, DRIVER_NOT_LOADED = 9 };
typedef unsigned long long bytes;
typedef struct { char name[64], uuid[64]; long total, used, usage, temperature; } gpu;
typedef struct { unsigned pid; bytes held; unsigned instance, compute; } process;
#define MIB (1ULL << 20)

static FILE *file(unsigned index, const char *suffix) {
    char path[512];
    snprintf(path, sizeof path, "%s/%u%s", getenv("FAKE_NVML"), index, suffix);
    return fopen(path, "r");
}

static int look(unsigned index, gpu *found) {
    FILE *from = file(index, "");
    if (!from) return INVALID;
    int words = fscanf(from, "%63s %63s %ld %ld %ld %ld", found->name, found->uuid, &found->total,
                       &found->used, &found->usage, &found->temperature);
    fclose(from);
    return words == 6 ? OK : INVALID;
}

static int parked(long pid) {
    char path[512];
    int state = 0;
    const char *folder = getenv("CUDA_FAKE");
    snprintf(path, sizeof path, "%s/%ld", folder ? folder : "/nowhere", pid);
    FILE *from = fopen(path, "r");
    if (!from) return 0;
    if (fscanf(from, "%d", &state) != 1) state = 0;
    fclose(from);
    return state == 2;
}

static unsigned processes(unsigned index, process *found, unsigned room) {
    unsigned count = 0;
    long pid, held;
    FILE *from = file(index, ".processes");
    if (!from) return 0;
    while (count < room && fscanf(from, "%ld %ld", &pid, &held) == 2)
        if (kill((pid_t)pid, 0) == 0 && !parked(pid))
            found[count++] = (process){(unsigned)pid, held * MIB, ~0u, ~0u};
    fclose(from);
    return count;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    return getenv("FAKE_NVML") ? OK : DRIVER_NOT_LOADED;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    const char *given = getenv("FAKE_NVML_DRIVER");
    snprintf(version, size, "%s", given ? given : "580.65.06");
    return OK;
}
const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "Error"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    gpu ignored;
    for (*count = 0; look(*count, &ignored) == OK; (*count)++) {}
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    gpu ignored;
    *handle = (char *)0 + index + 1;
    return look(index, &ignored);
}

static unsigned index_of(void *handle) { return (unsigned)((char *)handle - (char *)0) - 1; }

int nvmlDeviceGetIndex(void *handle, unsigned *index) {
    *index = index_of(handle);
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    gpu found;
    for (unsigned index = 0; look(index, &found) == OK; index++)
        if (!strcmp(found.uuid, uuid)) return nvmlDeviceGetHandleByIndex_v2(index, handle);
    return NOT_FOUND;
}

static int text(const char *from, char *to, unsigned size) {
    return (unsigned)snprintf(to, size, "%s", from) < size ? OK : TOO_SMALL;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned size) {
    gpu found;
    int code = look(index_of(handle), &found);
    return code ? code : text(found.name, name, size);
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) {
    gpu found;
    int code = look(index_of(handle), &found);
    return code ? code : text(found.uuid, uuid, size);
}

int nvmlDeviceGetMemoryInfo(void *handle, bytes *total_free_used) {
    gpu found;
    process there[64];
    int code = look(index_of(handle), &found);
    if (code) return code;
    bytes used = found.used * MIB, total = found.total * MIB;
    for (unsigned n = processes(index_of(handle), there, 64); n-- > 0;) used += there[n].held;
    total_free_used[0] = total;
    total_free_used[1] = used < total ? total - used : 0;
    total_free_used[2] = used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned *gpu_memory) {
    gpu found;
    int code = look(index_of(handle), &found);
    if (code || found.usage < 0) return code ? code : NOT_SUPPORTED;
    gpu_memory[0] = gpu_memory[1] = (unsigned)found.usage;
    return OK;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *degrees) {
    gpu found;
    int code = look(index_of(handle), &found);
    if (code || sensor || found.temperature < 0) return code ? code : NOT_SUPPORTED;
    *degrees = (unsigned)found.temperature;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process *found) {
    char hidden[512];
    process there[64];
    snprintf(hidden, sizeof hidden, "%s/hide", getenv("FAKE_NVML"));
    unsigned known = access(hidden, F_OK) ? processes(index_of(handle), there, 64) : 0;
    unsigned room = *count;
    *count = known;
    if (known > room) return TOO_SMALL;
    memcpy(found, there, known * sizeof *found);
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v2(void *handle, unsigned *count, process *found) {
    return nvmlDeviceGetComputeRunningProcesses_v3(handle, count, found);
}
