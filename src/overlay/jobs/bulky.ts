/** Files whose blocks take long to free. */

/** In blocks of 512 bytes: to give so much space back may keep others waiting. */
export const BULKY = 1 << 17

/** Whether a thread is to close the last descriptor of a removed file with these attributes. */
export const isBulky = (attributes: { blocks: number }): boolean => attributes.blocks > BULKY
