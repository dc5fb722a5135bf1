/** Files whose blocks take long to free. */

/** In blocks of 512 bytes. Freeing more space than this may delay other requests. */
export const BULKY = 1 << 17

/** Whether a job thread must close the last descriptor of a removed file with these attributes. */
export const isBulky = (attributes: { blocks: number }): boolean => attributes.blocks > BULKY
