/* A tunnel for one command, without root: the command has a network namespace with nothing but this tunnel in it.
 *
 *     rootless ADDRESS FILE COMMAND...
 *
 * ADDRESS is the IPv4 address inside, FILE has UAPI text. A child makes a user and a network namespace, opens the TUN in
 * there, hands its descriptor to the parent, and becomes the command. The parent, outside, has the UDP sockets.
 * Needs a /dev/net/tun that may be opened, and a kernel that allows user namespaces. */
#define _GNU_SOURCE
#include "pywg.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static pywg_device *device;

static void on_child(int number) { (void)number; pywg_device_stop(device); }

static void fail(const char *what) {
    fprintf(stderr, "rootless: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(path);
    close(fd);
}

/* The same user inside: so the command is you, and has none of the rights that its making took. */
static void enter_namespaces(void) {
    char map[64];
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) fail("unshare");
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    write_file("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    write_file("/proc/self/gid_map", map);
}

static int make_tun(void) {
    struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
    strcpy(request.ifr_name, "wg0");
    int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tun < 0) fail("/dev/net/tun");
    if (ioctl(tun, TUNSETIFF, &request) != 0) fail("TUNSETIFF");
    return tun;
}

static void configure(const char *name, const char *address, const char *mask) {
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = { 0 };
    struct sockaddr_in *told = (struct sockaddr_in *)&request.ifr_addr;
    strcpy(request.ifr_name, name);
    told->sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &told->sin_addr) != 1) fail(address);
    if (ioctl(control, SIOCSIFADDR, &request) != 0) fail("SIOCSIFADDR");
    inet_pton(AF_INET, mask, &told->sin_addr);
    if (ioctl(control, SIOCSIFNETMASK, &request) != 0) fail("SIOCSIFNETMASK");
    request.ifr_flags = IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &request) != 0) fail("SIOCSIFFLAGS");
    close(control);
}

static void route_everything(void) {
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct rtentry route = { .rt_flags = RTF_UP, .rt_dev = (char[]){ "wg0" } };
    ((struct sockaddr_in *)&route.rt_dst)->sin_family = AF_INET;
    ((struct sockaddr_in *)&route.rt_genmask)->sin_family = AF_INET;
    if (ioctl(control, SIOCADDRT, &route) != 0) fail("SIOCADDRT");
    close(control);
}

static void pass_descriptor(int channel, int fd) {
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } room = { .bytes = { 0 } };
    struct iovec nothing = { .iov_base = (char[]){ 0 }, .iov_len = 1 };
    struct msghdr message = { .msg_iov = &nothing, .msg_iovlen = 1,
                              .msg_control = room.bytes, .msg_controllen = sizeof room.bytes };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(channel, &message, 0) != 1) fail("sendmsg");
}

static int receive_descriptor(int channel) {
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr header; } room = { .bytes = { 0 } };
    char byte;
    struct iovec nothing = { .iov_base = &byte, .iov_len = 1 };
    struct msghdr message = { .msg_iov = &nothing, .msg_iovlen = 1,
                              .msg_control = room.bytes, .msg_controllen = sizeof room.bytes };
    int fd;
    if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&message) == NULL) return -1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void be_the_command(int channel, const char *address, char **command) {
    char go;
    enter_namespaces();
    pass_descriptor(channel, make_tun());
    if (read(channel, &go, 1) != 1) exit(1); /* the parent has said why */
    configure("lo", "127.0.0.1", "255.0.0.0");
    configure("wg0", address, "255.255.255.255");
    route_everything();
    execvp(command[0], command);
    fail(command[0]);
}

static void must(pywg_status status, const pywg_diagnostic *why) {
    if (status == PYWG_OK) return;
    fprintf(stderr, "rootless: %s: %s\n", pywg_status_name(status), why->text);
    exit(1);
}

int main(int argc, char **argv) {
    static char text[65536];
    int channel[2], status = 0;
    pywg_diagnostic why = { .size = sizeof why };
    if (argc < 4) return 2;
    FILE *file = fopen(argv[2], "r");
    if (file == NULL) fail(argv[2]);
    size_t length = fread(text, 1, sizeof text, file);
    fclose(file);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0) fail("socketpair");
    /* excerpt begins */
    /* The fork comes first: a device does not survive one. */
    pid_t child = fork();
    if (child == 0) {
        close(channel[0]);
        be_the_command(channel[1], argv[1], argv + 3);
    }
    close(channel[1]);
    int tun = receive_descriptor(channel[0]);
    if (tun < 0) return 1; /* the child has said why */
    pywg_device_options options = { .size = sizeof options, .name = "wg0", .tun_fd = tun, .uapi_fd = -1, .no_uapi = 1,
                                    .log_level = PYWG_LOG_ERROR, .log_fd = 2 };
    must(pywg_device_open(&options, &device, &why), &why);
    must(pywg_device_set(device, text, length, &why), &why);
    memset(text, 0, sizeof text);
    signal(SIGCHLD, on_child);
    if (write(channel[0], "", 1) != 1) return 1;
    pywg_status ended = pywg_device_run(device, &why);
    pywg_device_close(device);
    must(ended, &why);
    waitpid(child, &status, 0);
    /* excerpt ends */
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
