#include "pywg.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static pywg_device *device;

static void on_signal(int number) { (void)number; pywg_device_stop(device); }

int main(void) {
    const char *text = "listen_port=51820\nreplace_peers=true\n";
    pywg_diagnostic why = { .size = sizeof why };
    pywg_device_options options = { .size = sizeof options, .name = "wg0", .tun_fd = -1, .uapi_fd = -1,
                                    .log_level = PYWG_LOG_VERBOSE, .log_fd = 2 };
    pywg_status status = pywg_device_open(&options, &device, &why);
    if (status == PYWG_OK) status = pywg_device_set(device, text, strlen(text), &why);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (status == PYWG_OK) status = pywg_device_run(device, &why); /* this thread moves packets now */
    pywg_device_close(device);
    if (status != PYWG_OK) fprintf(stderr, "%s: %s\n", pywg_status_name(status), why.text);
    return status != PYWG_OK;
}
