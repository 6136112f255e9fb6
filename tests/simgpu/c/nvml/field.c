// Values by field id. In: power and energy, copies that ran, and what is told. Out: `nvmlDeviceGetFieldValues`. Absent:
// fields that nobody asks for, which answer "not supported".
#include "nvml.h"

struct field_value {
    unsigned field, scope;
    int64_t timestamp_us, latency_us;
    int type, code;
    union {
        double number;
        unsigned u32;
        uint64_t u64;
    } value;
};
enum { U32 = 1, U64 = 3 };

// Of `field_value.type`s that are whole numbers; false where the device does not have the field.
static bool whole(const struct device *d, unsigned field, uint64_t *out) {
    switch (field) {
    case 82: return told_number(d, "memory_temperature", out);
    case 83: *out = energy_millijoules(d); return true;
    case 138: return told_number(d, "nvlink_sent", out);
    case 139: return told_number(d, "nvlink_received", out);
    case 142: return told_number(d, "rows.corrected", out);
    case 143: return told_number(d, "rows.uncorrected", out);
    case 144: return told_number(d, "rows.pending", out);
    case 145: return told_number(d, "rows.failed", out);
    case 185:
    case 186: *out = power_milliwatts(d); return true;
    case 197: *out = d->index == 0 ? totals().sent_bytes : 0; told_number(d, "pcie_sent", out); return true;
    case 198: *out = d->index == 0 ? totals().received_bytes : 0; told_number(d, "pcie_received", out); return true;
    default: return false;
    }
}

API(nvmlDeviceGetFieldValues, (void *device, int count, struct field_value *values), {
    DEVICE(device);
    for (int i = 0; i < count; i++) {
        uint64_t value = 0;
        values[i].timestamp_us = (int64_t)wall_us();
        values[i].latency_us = 1;
        values[i].code = whole(d, values[i].field, &value) ? OK : NOT_SUPPORTED;
        values[i].type = value > UINT32_MAX ? U64 : U32;
        values[i].value.u64 = value;
    }
    return OK;
})
