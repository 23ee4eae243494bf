#include <ctype.h>
#include <stddef.h>

void work(const char *text, char *answer, size_t size) {
  size_t i;
  for (i = 0; text[i] && i + 1 < size; i++) answer[i] = (char)toupper((unsigned char)text[i]);
  answer[i] = 0;
}
