/* Answers "NAME TEXT" lines with what the plugin NAME makes of TEXT. Plugins are found by reading a folder. */
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef void work(const char *text, char *answer, size_t size);

static struct { char name[64]; work *work; } plugins[16];
static int plugin_count;

static const char *folder(void) {
  const char *named = getenv("PLUGINS");
  return named ? named : "/opt/app/plugins";
}

static void load(void) {
  DIR *opened = opendir(folder());
  struct dirent *entry;
  while (opened && (entry = readdir(opened)) && plugin_count < 16) {
    char path[512], *dot = strrchr(entry->d_name, '.');
    void *library;
    if (!dot || strcmp(dot, ".so")) continue;
    snprintf(path, sizeof path, "%s/%s", folder(), entry->d_name);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      fprintf(stderr, "%s\n", dlerror());
      continue;
    }
    snprintf(plugins[plugin_count].name, sizeof plugins[0].name, "%.*s", (int)(dot - entry->d_name), entry->d_name);
    *(void **)&plugins[plugin_count].work = dlsym(library, "work");
    printf("loaded %s\n", plugins[plugin_count].name);
    plugin_count++;
  }
  if (opened) closedir(opened);
  fflush(stdout);
}

static void *serve(void *argument) {
  FILE *stream = fdopen((int)(long)argument, "r+");
  char line[8192], answer[8192];
  while (stream && fgets(line, sizeof line, stream)) {
    char *text = strchr(line, ' ');
    int i = 0;
    line[strcspn(line, "\r\n")] = 0;
    if (!strcmp(line, "quit")) break;
    if (text) *text++ = 0;
    while (i < plugin_count && strcmp(plugins[i].name, line)) i++;
    if (i == plugin_count) snprintf(answer, sizeof answer, "error: no plugin %s", line);
    else plugins[i].work(text ? text : "", answer, sizeof answer);
    fseek(stream, 0, SEEK_CUR);
    fprintf(stream, "%s\n", answer);
    fflush(stream);
  }
  if (stream) fclose(stream);
  return NULL;
}

static void stop(int number) { (void)number; _exit(0); }

int main(int count, char **arguments) {
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client, one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET};
  if (count != 2) return fprintf(stderr, "usage: app PORT\n"), 2;
  signal(SIGTERM, stop);
  signal(SIGPIPE, SIG_IGN);
  load();
  address.sin_port = htons((unsigned short)atoi(arguments[1]));
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 64)) return perror("app"), 1;
  while ((client = accept(server, NULL, NULL)) >= 0) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, (void *)(long)client)) close(client);
    else pthread_detach(thread);
  }
  return perror("app"), 1;
}
