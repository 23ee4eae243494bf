/* Echoes lines in capitals, a thread for each client; `time`, `file` and `quit` are commands. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void *serve(void *argument) {
  int client = (int)(long)argument;
  FILE *in = fdopen(client, "r"), *out = fdopen(dup(client), "w");
  char *line = NULL;
  size_t size = 0;
  ssize_t length;
  while (in && out && (length = getline(&line, &size, in)) > 0) {
    if (!strcmp(line, "quit\n")) break;
    if (!strcmp(line, "time\n")) {
      time_t now = time(NULL);
      struct tm broken;
      char text[64];
      localtime_r(&now, &broken);
      strftime(text, sizeof text, "%Y-%m-%d %Z", &broken);
      fprintf(out, "%s\n", text);
    } else if (!strcmp(line, "file\n")) {
      FILE *file = fopen("/etc/os-release", "r");
      char text[256];
      if (!file || !fgets(text, sizeof text, file)) snprintf(text, sizeof text, "%s\n", strerror(errno));
      fputs(text, out);
      if (file) fclose(file);
    } else {
      for (ssize_t i = 0; i < length; i++) line[i] = (char)toupper((unsigned char)line[i]);
      fwrite(line, 1, (size_t)length, out);
    }
    fflush(out);
  }
  free(line);
  if (in) fclose(in);
  if (out) fclose(out);
  return NULL;
}

static void *accept_all(void *argument) {
  int server = (int)(long)argument, client;
  while ((client = accept(server, NULL, NULL)) >= 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, (void *)(long)client)) close(client);
    else pthread_detach(thread);
  }
  return NULL;
}

int main(int count, char **arguments) {
  sigset_t stop;
  int server, one = 1, signal_number;
  pthread_t thread;
  struct sockaddr_in address = {.sin_family = AF_INET};
  if (count != 2) return fprintf(stderr, "usage: echo-server PORT\n"), 2;
  address.sin_port = htons((unsigned short)atoi(arguments[1]));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &stop, NULL);
  signal(SIGPIPE, SIG_IGN);
  server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)
      || bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 64))
    return perror("echo-server"), 1;
  pthread_create(&thread, NULL, accept_all, (void *)(long)server);
  while (!sigwait(&stop, &signal_number) && signal_number == SIGHUP) puts("still here"), fflush(stdout);
  puts("stopped");
  return 0;
}
