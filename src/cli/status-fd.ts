/** Where the second process of a mount in the background finds the pipe to the first. */
export const STATUS_FD = 3
