"""One file for each form or release that is read, beside what they share; `deixis.data.opening` picks one."""
