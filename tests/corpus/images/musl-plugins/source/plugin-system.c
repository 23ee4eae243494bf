#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

void work(const char *text, char *answer, size_t size) {
  struct utsname names;
  struct sysinfo info;
  struct stat status;
  struct passwd *user = getpwuid(getuid());
  char path[] = "/tmp/corpus.XXXXXX";
  int file = mkstemp(path);
  time_t now = time(NULL);
  uname(&names);
  sysinfo(&info);
  if (file >= 0) {
    if (write(file, text, 1) < 0 || fsync(file) || fstat(file, &status)) perror("system");
    close(file);
    unlink(path);
  }
  snprintf(answer, size, "%s %s %d %d", names.sysname, user ? user->pw_name : "?", localtime(&now)->tm_year + 1900,
           info.procs > 0);
}
