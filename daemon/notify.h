// SPDX-License-Identifier: Apache-2.0
/* Tells systemd how the service is, by the datagram of sd_notify(3), without its library. */
#ifndef CAIRN_DAEMON_NOTIFY_H
#define CAIRN_DAEMON_NOTIFY_H

/** Sends @p state ("READY=1", "STOPPING=1") where NOTIFY_SOCKET says; does nothing without it or on failure. */
void notify_systemd(const char *state);

#endif
